/** Tasks that one worker runs at once. */
export const concurrency = 8

/** How long a run is held without a renewal. Short, so that the tasks of the killed worker are taken over soon. */
export const lease = "2 seconds"
