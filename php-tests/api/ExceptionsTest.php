<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

final class ExceptionsTest extends TestCase
{
    public function test_the_family_tree(): void
    {
        $said = $this->php(<<<'PHP'
            $tree = [];
            foreach (['MintFailed', 'WaitTimeout', 'StoreUnavailable', 'NoSource', 'RateUnavailable', 'InvalidValue', 'ConfigError'] as $name) {
                $tree[$name] = get_parent_class("SharedState\\$name");
            }
            return [$tree, get_parent_class('SharedState\Exception')];
            PHP);
        self::assertSame(['SharedState\\Exception'], array_values(array_unique($said[0])));
        self::assertCount(7, $said[0]);
        self::assertSame('RuntimeException', $said[1]);
    }

    public function test_they_behave_like_exceptions_of_php(): void
    {
        $said = $this->php(<<<'PHP'
            function wants_a_token() { return shared_token_get('crm'); }
            $line = __LINE__ - 1;
            class TooBad extends SharedState\MintFailed {
                public function __construct(public readonly string $more) { parent::__construct('mine', 7, new LogicException('why')); }
            }
            $own = new TooBad('extra');
            return [caught(fn () => wants_a_token()), $line, $own->more, $own->getMessage(), $own->getCode(),
                get_class($own->getPrevious()), $own instanceof SharedState\Exception, $own->getLine() > 0];
            PHP);
        [$caught, $line] = $said;
        self::assertSame($line, $caught['line']);
        self::assertStringStartsWith('code-', $caught['file']);
        self::assertStringContainsString('shared_token_get(', $caught['trace']);
        self::assertStringContainsString('wants_a_token()', $caught['trace']);
        self::assertSame(['extra', 'mine', 7, 'LogicException', true, true], array_slice($said, 2));
    }

    public function test_an_exception_of_the_callable_arrives_as_mint_failed_with_the_original(): void
    {
        $caught = $this->php("return caught(fn () => shared_token_get('crm', fn () => throw new DomainException('quota used up')));");
        self::assertSame('SharedState\\MintFailed', $caught['class'] ?? null, json_encode($caught));
        self::assertSame('DomainException', $caught['previous']);
        self::assertSame('quota used up', $caught['previous_message']);
        self::assertStringContainsString('quota used up', $caught['message']);
    }

    public function test_an_error_of_the_callable_passes_unchanged(): void
    {
        $caught = $this->php("return caught(fn () => shared_token_get('crm', fn () => nonsense()));");
        self::assertSame('Error', $caught['class'] ?? null, json_encode($caught));
        self::assertSame('Call to undefined function nonsense()', $caught['message']);
        self::assertNull($caught['previous']);
    }

    public function test_the_next_ones_are_told_the_reason_and_do_not_try(): void
    {
        $said = $this->php(<<<'PHP'
            $calls = 0;
            $mint = function () use (&$calls) { $calls++; throw new RuntimeException('https://idp.example/v6/0a1b2c3d4e5f6a7b8c9d/token?client_secret=hush said 503'); };
            return [caught(fn () => shared_token_get('crm', $mint)), caught(fn () => shared_token_get('crm', $mint)), $calls];
            PHP);
        self::assertSame(1, $said[2]);
        self::assertSame('SharedState\\MintFailed', $said[1]['class']);
        self::assertStringContainsString('said 503', $said[1]['message']);
        self::assertStringNotContainsString('hush', $said[1]['message'], 'queries of addresses are removed');
        self::assertStringContainsString('https://idp.example/v6/[removed]/token', $said[1]['message'], 'and keys in their paths');
    }

    /** Whoever failed knows as well as who is turned away how long the pause is by now. */
    public function test_each_failure_says_how_long_the_pause_is_that_it_began(): void
    {
        $pauses = $this->php(<<<'PHP'
            $pauses = [];
            for ($i = 0; $i < 4; $i++) {
                try {
                    shared_token_get('crm', fn () => throw new RuntimeException('503'));
                } catch (SharedState\MintFailed $failed) {
                    $pauses[] = $failed->retryAfter;
                    usleep((int) (1e6 * $failed->retryAfter) + 20_000);
                }
            }
            return $pauses;
            PHP, ['token.failure_backoff_ms' => 100]);
        foreach ([0.1, 0.2, 0.4, 0.8] as $i => $least) {
            self::assertGreaterThanOrEqual($least, $pauses[$i]);
            self::assertLessThan(1.26 * $least, $pauses[$i], 'a quarter more at random');
        }
    }

    /** @group extension */
    public function test_another_process_follows_the_back_off(): void
    {
        $settings = ['token.failure_backoff_ms' => 30_000];
        $this->php("return caught(fn () => shared_token_get('crm', fn () => throw new RuntimeException('no')));", $settings);
        $other = $this->php("return caught(fn () => shared_token_get('crm', function () { note('start', 'crm'); return 'T'; }, ['ttl' => 60]));", $settings);
        self::assertSame('SharedState\\MintFailed', $other['class'] ?? null, json_encode($other));
        self::assertSame(0, $this->mints->mints());
    }

    public function test_after_the_back_off_somebody_tries_again(): void
    {
        $said = $this->php(<<<'PHP'
            caught(fn () => shared_token_get('crm', fn () => throw new RuntimeException('no')));
            usleep(700_000);
            return caught(fn () => shared_token_get('crm', fn () => 'T', ['ttl' => 60]));
            PHP, ['token.failure_backoff_ms' => 200]);
        self::assertSame('T', $said['returned'] ?? null, json_encode($said));
    }

    /** @group extension */
    public function test_an_error_handler_that_throws_at_a_deprecated_callable_is_no_failed_mint(): void
    {
        if (PHP_VERSION_ID < 80200) {
            self::markTestSkipped('nothing is deprecated about self:: yet');
        }
        [$caught, $next, $failures] = $this->php(<<<PHP
            class Issuer {
                static function token() { return shared_token_get('crm', 'self::mint', ['ttl' => 60]); }
                private static function mint() { note('start', 'crm'); return 'never'; }
            }
            set_error_handler(fn (\$level, \$message) => throw new ErrorException(\$message));
            return [caught(Issuer::token(...)), caught(fn () => shared_token_get('crm', fn () => 'T', ['ttl' => 60])),
                sharedstate_status()['mint_failures']];
            PHP);
        self::assertSame('ErrorException', $caught['class'] ?? null, json_encode($caught));
        self::assertSame(0, $this->mints->mints());
        self::assertSame('T', $next['returned'] ?? null, json_encode($next));
        self::assertSame(0, $failures);
    }

    public function test_a_failed_mint_says_when_to_try_again(): void
    {
        $said = $this->php(<<<'PHP'
            $of = function (Closure $mint) {
                try { shared_token_get('crm', $mint); } catch (SharedState\MintFailed $failed) { return $failed; }
            };
            $first = $of(fn () => throw new RuntimeException('no'));
            $told = $of(fn () => 'not called');
            preg_match('/allowed in ([\d.]+) s/', $first->getMessage(), $words);
            return [$first->retryAfter, $told->retryAfter, (float) $words[1], caught(function () use ($first) { $first->retryAfter = 1.0; })['class'],
                (new SharedState\MintFailed('of a test'))->retryAfter, (new SharedState\MintFailed('', 1, $told, 2.5))->retryAfter];
            PHP, ['token.failure_backoff_ms' => 2000]);
        [$first, $told, $words, $class, $none, $given] = $said;
        self::assertEqualsWithDelta($words, $first, 0.06);
        self::assertGreaterThan(0.0, $told);
        self::assertLessThanOrEqual(2.6, $told);
        self::assertSame(['Error', null, 2.5], [$class, $none, $given]);
    }

    public function test_what_the_issuer_says_of_when_to_ask_again_is_the_pause_of_the_fleet(): void
    {
        [$first, $told, $previous, $refused, $seconds, $message] = $this->php(<<<'PHP'
            $of = function (Closure $mint) {
                try { shared_token_get('crm', $mint); } catch (SharedState\MintFailed $failed) { return $failed; }
            };
            $first = $of(fn () => throw new SharedState\RetryLater(30, 'HTTP 429'));
            $told = $of(fn () => throw new LogicException('not called'));
            $bad = array_map(fn ($seconds) => caught(fn () => new SharedState\RetryLater($seconds))['class'], [-1, NAN]);
            $bad[] = (new SharedState\RetryLater(90000))->seconds;
            $later = new SharedState\RetryLater(1.5, 'why', $told);
            return [$first->retryAfter, $told->retryAfter, [$first->getPrevious()::class, $first->getPrevious()->seconds], $bad, $later->seconds,
                [$later->getMessage(), $later->getCode(), $later->getPrevious() === $told, $later->getLine() > 0, strpos($told->getMessage(), 'HTTP 429') > 0]];
            PHP);
        self::assertEqualsWithDelta(30.0, $first, 0.5);
        self::assertEqualsWithDelta(30.0, $told, 0.5);
        self::assertSame(['SharedState\RetryLater', 30.0], [$previous[0], (float) $previous[1]]);
        self::assertEquals(['ValueError', 'ValueError', 86400.0], $refused, 'who is told of more is asked again in a day');
        self::assertSame(1.5, $seconds);
        self::assertSame(['why', 0, true, true, true], $message);
    }

    public function test_a_subclass_of_ours_may_say_more(): void
    {
        self::assertSame([7, 'told', 'HTTP 503'], $this->php(<<<'PHP'
            class Overloaded extends SharedState\RetryLater {
                public function __construct(public string $what) { parent::__construct(7, 'HTTP 503'); }
            }
            try { shared_token_get('crm', fn () => throw new Overloaded('told')); } catch (SharedState\MintFailed $failed) { $it = $failed->getPrevious(); }
            return [(int) round($failed->retryAfter), $it->what, $it->getMessage()];
            PHP));
    }

    /** The issuer answers HTML, and the callable was written for JSON. */
    public function test_an_error_at_an_early_renewal_is_logged_and_the_usable_token_is_served(): void
    {
        $code = <<<'PHP'
            $calls = 0;
            $mint = function () use (&$calls): array {
                return ++$calls === 1 ? ['access_token' => 'good', 'expires_in' => 20] : json_decode('<html>', true);
            };
            $options = ['margin' => 1, 'refresh_ratio' => 0.05];
            $first = shared_token_get('crm', $mint, $options);
            sleep(2);
            $second = caught(fn () => shared_token_get('crm', $mint, $options));
            return [$first, $second['returned'] ?? $second['class'], $calls, sharedstate_status()['mint_failures'],
                caught(fn () => shared_token_get('other', fn (): array => null))['class']];
            PHP;
        $result = $this->cli($code);
        self::assertStringContainsString('["good","good",2,1,"TypeError"]', $result->output);
        self::assertMatchesRegularExpression('/error: minting token "crm" failed, the old value is served: TypeError/', $result->errors . $result->output);
    }

    public function test_a_rejected_token_is_not_in_a_trace(): void
    {
        $caught = $this->php(<<<'PHP'
            ini_set('zend.exception_ignore_args', '0');
            return [
                caught(fn () => shared_token_invalidate('', 'SECRET-T')),
                caught(fn () => shared_token_get('crm', fn () => throw new RuntimeException('no'), ['rejected' => 'SECRET-T'])),
            ];
            PHP);
        self::assertStringNotContainsString('SECRET-T', json_encode($caught));
    }
}
