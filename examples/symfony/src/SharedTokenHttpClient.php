<?php

declare(strict_types=1);

namespace App;

use Closure;
use Generator;
use Symfony\Component\HttpClient\AsyncDecoratorTrait;
use Symfony\Component\HttpClient\Response\AsyncContext;
use Symfony\Component\HttpClient\Response\AsyncResponse;
use Symfony\Contracts\HttpClient\ChunkInterface;
use Symfony\Contracts\HttpClient\HttpClientInterface;
use Symfony\Contracts\HttpClient\ResponseInterface;

/** The client of one API: sends a shared bearer token, and another one, once, when the API refuses it. */
final class SharedTokenHttpClient implements HttpClientInterface
{
    use AsyncDecoratorTrait;

    /** @var Closure(): string */
    private readonly Closure $mint;

    /** @param callable(): string $mint returns the token response */
    public function __construct(HttpClientInterface $client, private readonly string $name, callable $mint)
    {
        $this->client = $client;
        $this->mint = $mint(...);
    }

    /** @param array<mixed> $options */
    public function request(string $method, string $url, array $options = []): ResponseInterface
    {
        $token = shared_token_get($this->name, $this->mint);

        return new AsyncResponse($this->client, $method, $url, ['auth_bearer' => $token] + $options,
            function (ChunkInterface $chunk, AsyncContext $context) use ($method, $url, $options, $token): Generator {
                $isAnswer = $chunk->getError() === null && $chunk->getInformationalStatus() === null && $chunk->isFirst();
                // A body that streams was sent and is gone.
                $isRefused = $isAnswer && $context->getStatusCode() === 401 && !is_object($options['body'] ?? null) && !is_resource($options['body'] ?? null);
                $fresh = $isRefused ? shared_token_get($this->name, $this->mint, ['rejected' => $token]) : $token;
                if ($isAnswer) {
                    $context->passthru();
                }
                if ($fresh === $token) {
                    yield $chunk;
                    return;
                }
                $context->getResponse()->cancel();
                $context->replaceRequest($method, $url, ['auth_bearer' => $fresh] + $options);
            });
    }
}
