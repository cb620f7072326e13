"""Learning-rate schedules: functions of the step or epoch tensor, multiplied onto an optimizer's own `lr`."""
