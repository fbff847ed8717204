"""The style sheet, the script and the frame that HTML pages share. It knows nothing about the content of a page."""
