<?php

declare(strict_types=1);

namespace App;

use Closure;
use GuzzleHttp\Promise\PromiseInterface;
use GuzzleHttp\Promise\TaskQueue;
use GuzzleHttp\Promise\Utils;
use GuzzleHttp\Psr7\UriComparator;
use Psr\Http\Message\RequestInterface;
use Psr\Http\Message\ResponseInterface;
use Psr\Http\Message\StreamInterface;
use Psr\Http\Message\UriInterface;

/** Guzzle middleware: sends a shared bearer token, and another one, once, when the API refuses it. */
final class SharedToken
{
    /** @var Closure(): string */
    private readonly Closure $mint;

    /**
     * @param UriInterface $api the only origin that gets the token: a redirect to another host does not
     * @param Closure(): string $mint returns the token response
     */
    public function __construct(private readonly string $name, private readonly UriInterface $api, Closure $mint)
    {
        $this->mint = static fn (): string => self::alone($mint);
    }

    /** @param callable(RequestInterface, array<mixed>): PromiseInterface $handler */
    public function __invoke(callable $handler): Closure
    {
        return function (RequestInterface $request, array $options) use ($handler): PromiseInterface {
            if (UriComparator::isCrossOrigin($this->api, $request->getUri())) {
                return $handler($request, $options);
            }
            $send = static fn (#[\SensitiveParameter] string $token): PromiseInterface =>
                $handler($request->withHeader('Authorization', "Bearer $token"), $options);
            $token = shared_token_get($this->name, $this->mint);

            return $send($token)->then(function (ResponseInterface $response) use ($request, $send, $token): ResponseInterface|PromiseInterface {
                if ($response->getStatusCode() !== 401 || !self::rewound($request->getBody())) {
                    return $response;
                }
                $fresh = shared_token_get($this->name, $this->mint, ['rejected' => $token]);
                // The same again: it was renewed a moment ago, and the API refuses something else.
                return $fresh === $token ? $response : $send($fresh);
            });
        };
    }

    /** Whether the body can be sent once more; what was read while it was sent is gone. */
    private static function rewound(StreamInterface $body): bool
    {
        if ($body->isSeekable()) {
            $body->rewind();
        }
        return $body->tell() === 0;
    }

    /**
     * Guzzle has one queue of callbacks for all clients, and a client that waits runs them. With many requests under
     * way these are answers of 401 that want the token which is being minted: they have to wait until it is there.
     *
     * @param Closure(): string $mint
     */
    private static function alone(Closure $mint): string
    {
        $queue = Utils::queue();
        Utils::queue(new TaskQueue(false));
        try {
            return $mint();
        } finally {
            Utils::queue($queue);
        }
    }
}
