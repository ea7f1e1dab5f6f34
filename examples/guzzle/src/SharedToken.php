<?php

declare(strict_types=1);

namespace App;

use Closure;
use GuzzleHttp\Promise\PromiseInterface;
use GuzzleHttp\Psr7\UriComparator;
use Psr\Http\Message\RequestInterface;
use Psr\Http\Message\ResponseInterface;
use Psr\Http\Message\UriInterface;

/** Guzzle middleware: sends a shared bearer token, and another one, once, when the API refuses it. */
final class SharedToken
{
    /**
     * @param UriInterface $api the only origin that gets the token: a redirect to another host does not
     * @param Closure(): string $mint returns the token response
     */
    public function __construct(private readonly string $name, private readonly UriInterface $api, private readonly Closure $mint)
    {
    }

    /** @param callable(RequestInterface, array<mixed>): PromiseInterface $handler */
    public function __invoke(callable $handler): Closure
    {
        return function (RequestInterface $request, array $options) use ($handler): PromiseInterface {
            if (UriComparator::isCrossOrigin($this->api, $request->getUri())) {
                return $handler($request, $options);
            }
            $send = static fn (string $token): PromiseInterface => $handler($request->withHeader('Authorization', "Bearer $token"), $options);
            $token = shared_token_get($this->name, $this->mint);

            return $send($token)->then(function (ResponseInterface $response) use ($request, $send, $token): ResponseInterface|PromiseInterface {
                $body = $request->getBody();
                if ($response->getStatusCode() !== 401 || ($body->tell() > 0 && !$body->isSeekable())) {
                    return $response;
                }
                $fresh = shared_token_get($this->name, $this->mint, ['rejected' => $token]);
                if ($fresh === $token) {
                    // It was renewed a moment ago: the API refuses something else.
                    return $response;
                }
                if ($body->isSeekable()) {
                    $body->rewind();
                }
                return $send($fresh);
            });
        };
    }
}
