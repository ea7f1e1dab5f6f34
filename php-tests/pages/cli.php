<?php

/** What the code of a command line test may use. */

require __DIR__ . '/mint.php';

/** @return array<string, mixed> the exception that $call throws, as plain data */
function caught(callable $call): array
{
    try {
        return ['returned' => $call()];
    } catch (Throwable $thrown) {
        return [
            'class' => get_class($thrown),
            'parents' => array_values(class_parents($thrown)),
            'message' => $thrown->getMessage(),
            'file' => basename($thrown->getFile()),
            'line' => $thrown->getLine(),
            'trace' => $thrown->getTraceAsString(),
            'text' => (string) $thrown,
            'previous' => $thrown->getPrevious() === null ? null : get_class($thrown->getPrevious()),
            'previous_message' => $thrown->getPrevious()?->getMessage(),
        ];
    }
}
