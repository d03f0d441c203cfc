"""What runs in the contenders' own environments. They import each other by bare names, as scripts in one folder."""
