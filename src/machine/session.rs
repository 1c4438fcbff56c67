//! The control channel of a session: cookies, cookie echoes, business cards, failover order.
