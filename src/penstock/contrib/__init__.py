"""What goes with other people's programs: each module is used only where its program is."""
