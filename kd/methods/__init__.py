"""How a student is trained: one LightningModule a method."""
