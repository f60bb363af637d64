/** Tasks that one worker runs at once. */
export const concurrency = 8

/** How long a run is held without a sign of life. Short, so that nobody waits long for the tasks of the dead. */
export const lease = "2 seconds"
