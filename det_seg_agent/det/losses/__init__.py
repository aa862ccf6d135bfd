"""Losses of the detection host taken apart by image, one module per criterion; used by `det.criterion`."""
