/**
 * A broker on RabbitMQ, over `amqplib`. Results are kept in any backend.
 */

/** The broker: layer and options. */
export * as RabbitBroker from "./RabbitBroker.ts"
