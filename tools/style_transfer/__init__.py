"""Style transfer with the original and the normalized VGG-16, side by side (Gatys, Ecker and Bethge, 2016)."""
