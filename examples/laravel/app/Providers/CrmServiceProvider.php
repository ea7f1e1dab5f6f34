<?php

declare(strict_types=1);

namespace App\Providers;

use App\Services\Crm;
use Illuminate\Contracts\Container\Container;
use Illuminate\Http\Client\Factory;
use Illuminate\Support\ServiceProvider;

final class CrmServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $this->app->singleton(Crm::class, static fn (Container $app): Crm => new Crm(
            $app->make(Factory::class),
            $app->make('config')->get('services.crm'),
        ));
    }
}
