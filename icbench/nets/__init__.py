"""Networks: the IC layer, ResNets, and one file for each ordering and norm."""
