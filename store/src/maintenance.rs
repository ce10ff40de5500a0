//! Collection of what nothing needs, and accounts of what is on disk.
