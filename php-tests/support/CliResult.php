<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

final class CliResult
{
    public function __construct(
        public readonly int $status,
        public readonly string $output,
        public readonly string $errors,
        public readonly float $elapsed,
    ) {
    }

    public function all(): string
    {
        return $this->output . $this->errors;
    }
}
