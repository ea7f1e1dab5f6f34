<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/** What came back for one FastCGI request. */
final class Response
{
    /** @param int $status 0 if the worker died before it had answered */
    public function __construct(
        public readonly int $status,
        public readonly string $body,
        public readonly string $errors,
        public readonly float $started,
        public readonly float $elapsed,
    ) {
    }

    /** @return array<string, mixed>|null what the page said, if it said JSON */
    public function json(): ?array
    {
        return json_decode($this->body, true);
    }

    public function token(): ?string
    {
        return $this->json()['token'] ?? null;
    }

    /** Class name of the exception the page caught. */
    public function error(): ?string
    {
        return $this->json()['error'] ?? null;
    }

    public function pid(): ?int
    {
        return $this->json()['pid'] ?? null;
    }

    public function ms(): float
    {
        return $this->elapsed * 1000;
    }

    public function describe(): string
    {
        return sprintf('%d after %.0f ms: %s %s', $this->status, $this->ms(), substr($this->body, 0, 500), substr($this->errors, 0, 500));
    }
}
