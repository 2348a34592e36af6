"""What can only be timed: run by hand or by ``varlab savings``, never by the tests."""
