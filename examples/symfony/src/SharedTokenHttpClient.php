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
                if ($chunk->getError() !== null || $chunk->getInformationalStatus() !== null || !$chunk->isFirst()) {
                    yield $chunk;
                    return;
                }
                // The head of the answer has come. Whatever follows goes through.
                $context->passthru();
                if ($context->getStatusCode() === 401 && self::canBeSentAgain($options['body'] ?? '')) {
                    $fresh = shared_token_get($this->name, $this->mint, ['rejected' => $token]);
                    // The same again: it was renewed a moment ago, and the API refuses something else.
                    if ($fresh !== $token) {
                        $context->getResponse()->cancel();
                        $context->replaceRequest($method, $url, ['auth_bearer' => $fresh] + $options);
                        return;
                    }
                }
                yield $chunk;
            });
    }

    /** A body that is read while it is sent is gone by then. */
    private static function canBeSentAgain(mixed $body): bool
    {
        return is_string($body) || is_array($body);
    }
}
