"""`vitbench report`: a study's runs become files that anyone can check, and a page that anyone can read."""
