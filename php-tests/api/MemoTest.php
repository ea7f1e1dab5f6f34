<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** What a request remembers of its own calls never answers another question than the one that was asked. */
final class MemoTest extends TestCase
{
    public function test_an_options_array_changed_in_place_is_another_question(): void
    {
        self::assertSame('AACC', $this->php(<<<'PHP'
            $options = ['ttl' => 60, 'fingerprint' => ['scope' => 'a']];
            $said = shared_token_get('x', fn () => 'A', $options) . shared_token_get('x', fn () => 'B', $options);
            $options['fingerprint']['scope'] = 'b';
            return $said . shared_token_get('x', fn () => 'C', $options) . shared_token_get('x', fn () => 'D', $options);
            PHP));
    }

    public function test_a_reference_inside_the_options_is_read_anew(): void
    {
        self::assertSame('AB', $this->php(<<<'PHP'
            $scope = 'a';
            $options = ['ttl' => 60, 'fingerprint' => ['scope' => &$scope]];
            $said = shared_token_get('x', fn () => 'A', $options);
            $scope = 'b';
            return $said . shared_token_get('x', fn () => 'B', $options);
            PHP));
    }

    public function test_a_thousand_short_lived_names_and_options_never_meet(): void
    {
        self::assertSame([], $this->php(<<<'PHP'
            $wrong = [];
            for ($i = 0; $i < 1000; $i++) {
                $options = ['ttl' => 60, 'fingerprint' => 'f' . $i % 5];
                $wanted = 'token-' . $i % 40 . '-f' . $i % 5;
                $got = shared_token_get('name ' . $i % 40, fn () => $wanted, $options);
                if ($got !== $wanted) {
                    $wrong[] = [$wanted, $got];
                }
            }
            return $wrong;
            PHP));
    }

    public function test_a_remembered_token_is_dropped_with_its_rejection(): void
    {
        self::assertSame('AABB', $this->php(<<<'PHP'
            $options = ['ttl' => 60];
            $said = shared_token_get('x', fn () => 'A', $options) . shared_token_get('x', null, $options);
            return $said . shared_token_get('x', fn () => 'B', ['rejected' => 'A'] + $options) . shared_token_get('x', null, $options);
            PHP));
    }

    /** @group processes */
    public function test_an_invalidation_by_another_process_ends_what_is_remembered(): void
    {
        self::assertSame('AB', $this->php(<<<'PHP'
            $said = shared_token_get('x', fn () => 'A', ['ttl' => 60]);
            if (($child = pcntl_fork()) === 0) {
                shared_token_invalidate('x');
                exit;
            }
            pcntl_waitpid($child, $status);
            return $said . shared_token_get('x', fn () => 'B', ['ttl' => 60]);
            PHP));
    }

    public function test_a_string_that_was_handed_out_may_be_changed(): void
    {
        self::assertSame('TT!T', $this->php(<<<'PHP'
            $one = shared_token_get('x', fn () => 'T', ['ttl' => 60]);
            $two = shared_token_get('x');
            $two .= '!';
            return $one . $two . shared_token_get('x');
            PHP));
    }
}
