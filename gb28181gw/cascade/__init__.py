"""Upper platforms: we register there as a lower platform and serve what is shared (GB/T 28181-2022 4.1.4, 9)."""
