"""What goes over the wire: the shapes of answers that are not values of a lower room."""
