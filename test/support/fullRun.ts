/** How much the fault suites do. */

/** Whether all of it is asked for, by `npm run test:faults`; otherwise a short form. */
export const isFullRun: boolean = process.env["CHICORY_TEST_FAULTS"] === "all"
