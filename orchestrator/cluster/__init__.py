"""Where Ray is: Tune schedules the trials, actors evaluate them. Nothing outside this folder imports ray."""
