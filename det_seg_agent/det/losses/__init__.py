"""The host's losses taken apart by image, one file per criterion; `registry.split_of` finds the one for it."""
