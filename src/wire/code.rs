//! Code points, with room for the values nobody has assigned yet.
