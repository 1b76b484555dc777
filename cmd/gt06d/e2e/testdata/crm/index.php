<?php
// A CRM: a real Laravel (Debian's framework) of one file, served by php -S. It
// reads the table of the Node service and, with the models of ops/deploy/laravel,
// the tables of gt06.
require '/usr/share/php/Illuminate/autoload.php';
$laravel = getenv('CRM_LARAVEL').'/';
spl_autoload_register(function ($class) use ($laravel) {
    if (str_starts_with($class, 'App\\')) {
        require $laravel.'app/'.str_replace('\\', '/', substr($class, 4)).'.php';
    }
});

use App\Models\Gt06\Alarm;
use App\Models\Gt06\Device;
use App\Models\Gt06\Heartbeat;
use App\Models\Gt06\LatestPosition;
use App\Models\Gt06\Position;
use Carbon\Carbon;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Route;

$app = new Illuminate\Foundation\Application(getenv('CRM_DIR'));
$app->instance('env', 'production');
class Kernel extends Illuminate\Foundation\Http\Kernel
{
    protected $bootstrappers = [
        Illuminate\Foundation\Bootstrap\RegisterFacades::class, Illuminate\Foundation\Bootstrap\RegisterProviders::class, Illuminate\Foundation\Bootstrap\BootProviders::class,
    ];
}
class Handler extends Illuminate\Foundation\Exceptions\Handler
{
    public function report(Throwable $e)
    {
        error_log((string) $e);
    }

    public function render($request, Throwable $e)
    {
        return new Illuminate\Http\JsonResponse(['error' => $e->getMessage()], 500);
    }
}
$app->singleton(Illuminate\Contracts\Http\Kernel::class, Kernel::class);
$app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class, Handler::class);
$mysql = ['driver' => 'mysql', 'unix_socket' => getenv('GT06_DB_SOCKET'), 'database' => getenv('CRM_DATABASE'), 'username' => getenv('DB_USERNAME'), 'password' => '', 'charset' => 'utf8mb4', 'collation' => 'utf8mb4_unicode_ci', 'prefix' => '', 'strict' => true];
$app->instance('config', new Illuminate\Config\Repository([
    'app' => ['env' => 'production', 'timezone' => getenv('APP_TIMEZONE'), 'providers' => [
        Illuminate\Database\DatabaseServiceProvider::class, App\Providers\Gt06ServiceProvider::class,
    ]],
    'database' => ['default' => 'mysql', 'connections' => ['mysql' => $mysql, 'gt06' => require $laravel.'config/gt06.php']],
]));
date_default_timezone_set(getenv('APP_TIMEZONE')); // as LoadConfiguration does
$app->booted(function () {
    Route::get('/vehicles/{imei}', function ($imei) { // what the CRM asked before there was gt06
        return ['last' => DB::table('gps_positions')->where('imei', $imei)->orderByDesc('fix_time')->first(), 'count' => DB::table('gps_positions')->where('imei', $imei)->count()];
    });
    Route::get('/gt06/{imei}', function ($imei) {
        $device = Device::where('imei', $imei)->firstOrFail();
        $latest = $device->latestPosition;
        $from = $latest->fix_time->copy()->subHour();
        $track = $device->track($from, $latest->fix_time)->get();

        return [
            'zone' => $latest->fix_time->tzName, 'shown' => $latest->fix_time->format('Y-m-d H:i:s'), 'unix' => $latest->fix_time->getTimestamp(), 'latest' => $latest,
            'track' => $track->map(fn ($p) => [$p->fix_time->getTimestamp(), $p->latitude, $p->longitude]), 'identities' => $track->unique()->count(),
            'recent' => $device->positions()->where('fix_time', '>=', Carbon::now()->subMinutes(10))->count(),
            'in_the_future' => $device->positions()->where('fix_time', '>', Carbon::now()->addMinutes(10))->count(),
            'seen' => Device::silentSince(Carbon::now()->subMinutes(10))->count(),
            'eager' => Device::with('latestPosition', 'alarms', 'heartbeats', 'events', 'commands')->find($device->id)->toArray(),
            'kinds' => [$latest->device->imei, $track->first()->device->imei, get_class($device->alarms()->first()), get_class($device->heartbeats()->first())],
            'by_id' => LatestPosition::find($device->id)->fix_hash === $latest->fix_hash,
            'alarm' => Alarm::orderByDesc('fix_time')->first()->toArray(), 'extras' => Heartbeat::orderByDesc('received_at')->first()->extras,
        ];
    });
    Route::get('/writes/{imei}', function ($imei) { // each must be refused
        $said = [];
        foreach ([
            'save' => fn () => Device::where('imei', $imei)->first()->fill([])->setAttribute('name', 'x')->save(),
            'delete' => fn () => Position::first()->delete(),
            'find' => fn () => Position::find(1),
            'route' => fn () => (new Position)->resolveRouteBinding(1),
            'sql' => fn () => DB::connection('gt06')->update('UPDATE devices SET name = ?', ['x']),
        ] as $name => $try) {
            try {
                $try();
                $said[$name] = null;
            } catch (Throwable $e) {
                $said[$name] = $e->getMessage();
            }
        }

        return $said;
    });
});
$kernel = $app->make(Illuminate\Contracts\Http\Kernel::class);
$request = Request::capture();
$kernel->handle($request)->send();
