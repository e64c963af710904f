//! What users see, through the built program: one file per command.
