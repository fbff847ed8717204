"""`vitbench advise`: from a folder of photographs to an answer in words. It composes what the rooms below do."""
