"""From what is typed to objects: `command_line`, `build`. A run's folder says what is `saved`; `resume` goes on."""
