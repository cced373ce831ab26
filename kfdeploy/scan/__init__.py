"""Every image that an installation names: reads the built components and fills the inventory."""
