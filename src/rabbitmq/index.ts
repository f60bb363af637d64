/**
 * A broker on RabbitMQ, over `amqplib`. Results are kept in any backend.
 *
 * @module chicory/rabbitmq
 */

/** The broker: layer and options. */
export * as RabbitBroker from "./RabbitBroker.ts"
