"""Stories in the form of bAbI, hidden in long text."""
