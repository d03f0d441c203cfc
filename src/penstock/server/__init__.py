"""`penstock broker`: the embedded engine, served over the network."""
