using NbdKit.Layers;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>A random history of requests on one stack, each compared with the model.</summary>
internal sealed class StackHistory
{
    private const int Operations = 200;
    private const int LargestData = 40_000;

    private readonly NextContext _disk;
    private readonly ModelPlugin _plugin;
    private readonly StackModel _model;
    private readonly Random _random;
    private readonly string _stack;
    private string _operation = "";

    public StackHistory(NextContext disk, ModelPlugin plugin, StackModel model, Random random, string stack)
    {
        _disk = disk;
        _plugin = plugin;
        _model = model;
        _random = random;
        _stack = stack;
    }

    private NbdExportInfo Info => _model.Info;

    public async Task RunAsync()
    {
        for (int i = 0; i < Operations; i++)
        {
            int kind = _random.Next(100);
            (long offset, long length) = RandomRange(isData: kind < 60);
            RequestFlags flags = Info.CanFua != Support.None && _random.Next(3) == 0 ? RequestFlags.Fua : RequestFlags.None;
            _operation = $"#{i} {offset}+{length} {flags} kind {kind}";
            try
            {
                await OneAsync(kind, offset, length, flags);
            }
            catch (Exception e) when (e is not AssertionException)
            {
                throw new AssertionException($"{_stack}: {_operation}: {e}", e);
            }
            Check(_plugin.Offence is null, $"the plugin was asked to {_plugin.Offence}");
            if (!_model.HoldsBack && (i % 20 == 0 || i == Operations - 1))
            {
                Check(_plugin.Data.AsSpan().SequenceEqual(_model.Content), "the content differs");
            }
        }
    }

    private Task OneAsync(int kind, long offset, long length, RequestFlags flags) => kind switch
    {
        >= 95 => FlushAsync(),
        _ when length == 0 => Task.CompletedTask,
        < 15 => ReadAsync(offset, length),
        < 25 => ReadSparseAsync(offset, length),
        < 50 => WriteAsync(offset, length, flags),
        < 60 => WriteManyAsync(offset, length, flags),
        < 75 => ZeroAsync(offset, length, flags),
        < 82 => TrimAsync(offset, length, flags),
        < 87 => CacheAsync(offset, length),
        _ => ExtentsAsync(offset, length),
    };

    private async Task ReadAsync(long offset, long length)
    {
        byte[] buffer = new byte[length];
        buffer.AsSpan().Fill(0xEE);
        if (IsBad(offset, length))
        {
            await MustFailAsync([NbdError.IoError], async () => await _disk.ReadAsync(buffer, offset, default));
            return;
        }
        await _disk.ReadAsync(buffer, offset, default);
        Check(_model.Expected(offset, length).AsSpan().SequenceEqual(buffer), "a read returned other bytes");
    }

    private async Task ReadSparseAsync(long offset, long length)
    {
        byte[] buffer = new byte[length];
        buffer.AsSpan().Fill(0xEE);
        var extents = new ExtentList(offset, offset + length);
        if (IsBad(offset, length))
        {
            await MustFailAsync([NbdError.IoError], async () => await _disk.ReadSparseAsync(buffer, offset, extents, default));
            return;
        }
        await _disk.ReadSparseAsync(buffer, offset, extents, default);
        foreach (Extent hole in extents.Where(extent => (extent.Status & ExtentStatus.Zero) != 0))
        {
            buffer.AsSpan((int)(hole.Offset - offset), (int)hole.Length).Clear();
        }
        Check(_model.Expected(offset, length).AsSpan().SequenceEqual(buffer), "a sparse read returned other bytes");
    }

    private async Task WriteAsync(long offset, long length, RequestFlags flags)
    {
        byte[] data = DataFor(offset, length);
        if (!Info.CanWrite)
        {
            await MustBeMisuseAsync(async () => await _disk.WriteAsync(data, offset, RequestFlags.None, default));
            return;
        }
        await ChangeAsync(offset, data, flags, async () => await _disk.WriteAsync(data, offset, flags, default));
    }

    /// <summary>Random bytes; where some are refused, half the time with what is there in places or all over.</summary>
    private byte[] DataFor(long offset, long length)
    {
        byte[] data = new byte[length];
        _random.NextBytes(data);
        if (_model.Refuses && _random.Next(2) == 0)
        {
            int from = _random.Next(2) == 0 ? 0 : _random.Next((int)length);
            _model.Expected(offset + from, length - from).CopyTo(data, from);
        }
        return data;
    }

    /// <summary>Neighbours that share blocks below, written at once.</summary>
    private async Task WriteManyAsync(long offset, long length, RequestFlags flags)
    {
        if (!Info.CanWrite)
        {
            return;
        }
        byte[] data = DataFor(offset, length);
        var writes = new List<Task>();
        for (long at = 0; at < length;)
        {
            long count = Math.Min(length - at, _random.NextInt64(1, (length / _model.Unit / 4) + 2) * _model.Unit);
            (long start, byte[] piece) = (offset + at, data[(int)at..(int)(at + count)]);
            writes.Add(ChangeAsync(start, piece, flags, async () => await _disk.WriteAsync(piece, start, flags, default)));
            at += count;
        }
        await Task.WhenAll(writes);
    }

    /// <summary>Runs a request that puts bytes somewhere, or that must fail.</summary>
    private async Task ChangeAsync(long offset, byte[] data, RequestFlags flags, Func<Task> request)
    {
        List<NbdError> refusals = _model.Refusals(offset, data);
        if (refusals.Count > 0)
        {
            await MustFailAsync(refusals, request);
            lock (_model)
            {
                TakeOver(offset, data);
            }
            return;
        }
        await request();
        int real = _model.Real(offset, data.Length);
        lock (_model)
        {
            data.AsSpan(0, real).CopyTo(real == 0 ? default : _model.Bytes(offset, real));
        }
        CheckDurable(offset, real, flags);
    }

    /// <summary>A request that failed may have changed some of what it was to change, and nothing else.</summary>
    private void TakeOver(long offset, byte[] data)
    {
        int real = _model.Real(offset, data.Length);
        if (real == 0)
        {
            return;
        }
        Span<byte> model = _model.Bytes(offset, real);
        Range range = _model.InPlugin(offset, real);
        ReadOnlySpan<byte> now = _plugin.Data.AsSpan(range);
        for (int i = 0; i < real; i++)
        {
            Check(
                now[i] == model[i] || (now[i] == data[i] && !_model.IsProtected(range.Start.Value + i)),
                $"a request that failed has changed byte {offset + i}");
        }
        now.CopyTo(model);
    }

    private bool IsBad(long offset, long length) => _model.Bad.Any(bad => bad.Start < offset + length && offset < bad.End);

    private async Task MustFailAsync(IReadOnlyList<NbdError> errors, Func<Task> request)
    {
        try
        {
            await request();
        }
        catch (NbdException e) when (errors.Contains(e.Error))
        {
            return;
        }
        Check(false, $"a request succeeded that must fail with {string.Join(" or ", errors)}");
    }

    private async Task ZeroAsync(long offset, long length, RequestFlags flags)
    {
        bool fast = _random.Next(3) == 0;
        if (Info.CanZero == Support.None)
        {
            await MustBeMisuseAsync(async () => await _disk.ZeroAsync(offset, length, RequestFlags.None, default));
            return;
        }
        if (fast && !Info.CanFastZero)
        {
            await MustBeMisuseAsync(async () => await _disk.ZeroAsync(offset, length, RequestFlags.FastZero, default));
            return;
        }
        flags |= (fast ? RequestFlags.FastZero : 0) | (_random.Next(2) == 0 ? RequestFlags.MayTrim : 0);
        _operation += $" zero {flags}";
        byte[] zeroes = new byte[length];
        try
        {
            await ChangeAsync(offset, zeroes, flags, async () => await _disk.ZeroAsync(offset, length, flags, default));
        }
        catch (NbdException e) when (fast && e.Error == NbdError.NotSupported)
        {
            byte[] content = await ContentAsync(offset, length);
            Check(_model.Expected(offset, length).AsSpan().SequenceEqual(content), "a refused zero had an effect");
        }
    }

    private async Task TrimAsync(long offset, long length, RequestFlags flags)
    {
        if (!Info.CanTrim)
        {
            await MustBeMisuseAsync(async () => await _disk.TrimAsync(offset, length, RequestFlags.None, default));
            return;
        }
        List<NbdError> refusals = _model.Refusals(offset, new byte[length]);
        try
        {
            await _disk.TrimAsync(offset, length, flags, default);
        }
        catch (NbdException e) when (refusals.Contains(e.Error))
        {
            // A filter may trim less than it is asked to, and not get to what may not be changed.
        }
        // What a trimmed range holds is undefined; everything around it is not, nor is what may not be changed.
        byte[] content = await ContentAsync(offset, length);
        int real = _model.Real(offset, length);
        if (real > 0)
        {
            Span<byte> model = _model.Bytes(offset, real);
            int start = _model.Refuses ? _model.InPlugin(offset, real).Start.Value : 0;
            for (int i = 0; _model.Refuses && i < real; i++)
            {
                Check(content[i] == model[i] || !_model.IsProtected(start + i), $"a trim has changed byte {offset + i}");
            }
            content.AsSpan(0, real).CopyTo(model);
        }
        if (!_model.HoldsBack)
        {
            Check(_plugin.Data.AsSpan().SequenceEqual(_model.Content), "a trim had an effect outside its range");
        }
        else if (_model.IsBacked)
        {
            byte[] all = await ContentAsync(0, _model.Size / _model.Unit * _model.Unit);
            Check(_model.Bytes(0, all.Length).SequenceEqual(all), "a trim had an effect outside its range");
        }
    }

    /// <summary>What a range holds, as the plugin has it, unless that is kept in the dark.</summary>
    private async Task<byte[]> ContentAsync(long offset, long length)
    {
        byte[] content = new byte[length];
        if (_model.HoldsBack)
        {
            await _disk.ReadInPiecesAsync(content, offset, default);
        }
        else if (_model.Real(offset, length) is > 0 and var real)
        {
            _plugin.Data[_model.InPlugin(offset, real)].CopyTo(content, 0);
        }
        return content;
    }

    private async Task FlushAsync()
    {
        if (!Info.CanFlush && Info.CanFua != Support.Emulate)
        {
            await MustBeMisuseAsync(async () => await _disk.FlushAsync(default));
            return;
        }
        await _disk.FlushAsync(default);
        if (!_model.LosesData)
        {
            Check(_plugin.Data.AsSpan().SequenceEqual(_plugin.Stable), "not all was on stable storage after a flush");
            Check(_plugin.Data.AsSpan().SequenceEqual(_model.Content), "a flush left something behind");
        }
    }

    private async Task CacheAsync(long offset, long length)
    {
        if (Info.CanCache == Support.None)
        {
            await MustBeMisuseAsync(async () => await _disk.CacheAsync(offset, length, default));
            return;
        }
        await _disk.CacheAsync(offset, length, default);
    }

    private async Task ExtentsAsync(long offset, long length)
    {
        RequestFlags flags = _random.Next(2) == 0 ? RequestFlags.RequestOne : RequestFlags.None;
        var extents = new ExtentList(offset, _model.Size);
        await _disk.ExtentsAsync(offset, length, flags, extents, default);
        Check(extents.Count > 0 && extents[0].Offset == offset, "the extents begin elsewhere");
        long at = offset;
        foreach (Extent extent in extents)
        {
            Check(extent.Offset == at && extent.Length > 0 && extent.Length <= _model.Size - at, "the extents are not in order");
            at = extent.End;
            if ((extent.Status & ExtentStatus.Zero) != 0)
            {
                Check(
                    !_model.Expected(extent.Offset, extent.Length).AsSpan().ContainsAnyExcept((byte)0) && !IsBad(extent.Offset, extent.Length),
                    $"{extent.Length} bytes at {extent.Offset} are said to be zero and are not");
            }
        }
        if (!Info.CanExtents)
        {
            Check(extents.Count == 1 && extents[0] == new Extent(offset, length, ExtentStatus.Data), "not all is data");
        }
    }

    private void CheckDurable(long offset, long length, RequestFlags flags)
    {
        if (length == 0 || _model.IsFrozen || _model.LosesData || (!_model.ForcesData && (flags & RequestFlags.Fua) == 0))
        {
            return;
        }
        Range range = _model.InPlugin(offset, length);
        Check(_plugin.Stable.AsSpan(range).SequenceEqual(_plugin.Data.AsSpan(range)), "data was not on stable storage in time");
    }

    private async Task MustBeMisuseAsync(Func<Task> request)
    {
        try
        {
            await request();
        }
        catch (InvalidOperationException)
        {
            return;
        }
        Check(false, "a request that is not supported was accepted");
    }

    private (long Offset, long Length) RandomRange(bool isData)
    {
        long units = _model.Size / _model.Unit;
        if (units == 0)
        {
            return (0, 0);
        }
        long largest = units;
        if (isData)
        {
            long maximum = Info.BlockSize.Maximum is > 0 and var m ? Math.Min(m, LargestData) : LargestData;
            largest = Math.Min(units, maximum / _model.Unit);
        }
        long length = _random.Next(3) switch
        {
            0 => _random.NextInt64(1, Math.Min(largest, 8) + 1),
            1 => _random.NextInt64(1, Math.Min(largest, 1 + (5000 / _model.Unit)) + 1),
            _ => _random.NextInt64(1, largest + 1),
        };
        long offset = _random.Next(8) switch
        {
            0 => 0,
            1 => units - length,
            _ => _random.NextInt64(units - length + 1),
        };
        return (offset * _model.Unit, length * _model.Unit);
    }

    private void Check(bool condition, string message)
    {
        if (!condition)
        {
            throw new AssertionException($"{_stack}: {_operation}: {message}");
        }
    }
}
