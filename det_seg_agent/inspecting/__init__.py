"""What the labels and images of a data set say before any training: adapters read them, `report` writes it."""
