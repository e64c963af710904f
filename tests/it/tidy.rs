//! What holds for the source tree: rooms, landlords, sizes, lists, links.
