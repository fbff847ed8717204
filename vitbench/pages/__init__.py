"""What HTML pages share: a style sheet, a script and the frame that templates fill. It knows no page's content."""
