"""`vitbench advise`: answers in words which network suits a folder of photographs. Other rooms do the work."""
