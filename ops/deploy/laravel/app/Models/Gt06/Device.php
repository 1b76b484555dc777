<?php

namespace App\Models\Gt06;

/** A tracker, known by its IMEI. */
class Device extends Model
{
    use HasExtras;

    protected $table = 'devices';

    protected $casts = [
        'first_seen_at' => 'datetime',
        'last_seen_at' => 'datetime',
        'created_at' => 'datetime',
        'updated_at' => 'datetime',
    ];

    public function latestPosition()
    {
        return $this->hasOne(LatestPosition::class);
    }

    public function positions()
    {
        return $this->hasMany(Position::class);
    }

    /** The track between two times: Carbon, or texts in UTC. */
    public function track($from, $to)
    {
        return $this->positions()->track($from, $to);
    }

    public function alarms()
    {
        return $this->hasMany(Alarm::class);
    }

    public function heartbeats()
    {
        return $this->hasMany(Heartbeat::class);
    }

    public function events()
    {
        return $this->hasMany(DeviceEvent::class);
    }

    public function commands()
    {
        return $this->hasMany(DeviceCommand::class);
    }

    public function scopeSilentSince($query, $time)
    {
        return $query->where('last_seen_at', '<', $time);
    }
}
