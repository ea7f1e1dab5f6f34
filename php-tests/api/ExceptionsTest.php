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
            $mint = function () use (&$calls) { $calls++; throw new RuntimeException('https://idp.example/token?client_secret=hush said 503'); };
            return [caught(fn () => shared_token_get('crm', $mint)), caught(fn () => shared_token_get('crm', $mint)), $calls];
            PHP);
        self::assertSame(1, $said[2]);
        self::assertSame('SharedState\\MintFailed', $said[1]['class']);
        self::assertStringContainsString('said 503', $said[1]['message']);
        self::assertStringNotContainsString('hush', $said[1]['message'], 'queries of addresses are removed');
    }

    /** @group extension */
    public function test_another_process_follows_the_back_off(): void
    {
        $this->php("return caught(fn () => shared_token_get('crm', fn () => throw new RuntimeException('no')));");
        $other = $this->php("return caught(fn () => shared_token_get('crm', function () { note('start', 'crm'); return 'T'; }, ['ttl' => 60]));");
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

    /** @return array<string, array{int}> at which look of PHP at the callable: the parser's, or the one before the call */
    public static function looks(): array
    {
        return ['the parser' => [1], 'the call' => [2]];
    }

    /**
     * @dataProvider looks
     * @group extension
     */
    public function test_an_error_handler_that_throws_at_a_deprecated_callable_is_no_failed_mint(int $look): void
    {
        if (PHP_VERSION_ID < 80200) {
            self::markTestSkipped('nothing is deprecated about self:: yet');
        }
        [$caught, $next, $failures] = $this->php(<<<PHP
            class Issuer {
                static function token() { return shared_token_get('crm', 'self::mint', ['ttl' => 60]); }
                private static function mint() { note('start', 'crm'); return 'never'; }
            }
            \$looks = 0;
            set_error_handler(function (\$level, \$message) use (&\$looks) {
                return ++\$looks !== $look ?: throw new ErrorException(\$message);
            });
            return [caught(Issuer::token(...)), caught(fn () => shared_token_get('crm', fn () => 'T', ['ttl' => 60])),
                sharedstate_status()['mint_failures']];
            PHP);
        self::assertSame('ErrorException', $caught['class'] ?? null, json_encode($caught));
        self::assertSame(0, $this->mints->mints());
        self::assertSame('T', $next['returned'] ?? null, json_encode($next));
        self::assertSame(0, $failures);
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
