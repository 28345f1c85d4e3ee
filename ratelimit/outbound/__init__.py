"""For the calls that a program makes itself: waits until a rate has room, or spaces the calls evenly."""
