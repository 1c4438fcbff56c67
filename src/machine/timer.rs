//! Timers: the RFCs' names, and deadlines by key.
