"""What a run keeps, and how: tables of Parquet parts, checkpoints, and the disks or object stores they lie on."""
