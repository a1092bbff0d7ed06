using System.Text;
using NbdKit.Plugins;

namespace NbdKit.Tests;

public sealed class NbdStreamTests
{
    [Test]
    public async Task A_random_history_equals_a_flat_array(
        [Values(1, 512, 4096)] int minimum, [Values(8192, 8192 + 700)] int size)
    {
        // Reads and writes at any alignment, by every overload; the disk checks that its blocks are respected.
        int seed = minimum + size;
        var random = new Random(seed);
        byte[] bytes = new byte[size];
        random.NextBytes(bytes);
        byte[] model = [.. bytes];
        await using NbdBackend chain = NbdBackend.Compose(Blocks(bytes, minimum));
        await using var stream = new NbdStream(await chain.OpenAsync());
        for (int step = 0; step < 600; step++)
        {
            int at = random.Next(size);
            int count = random.Next(Math.Min(size - at, random.Next(2) == 0 ? 20 : size) + 1);
            byte[] buffer = new byte[count + 3];
            stream.Seek(at, SeekOrigin.Begin);
            bool write = random.Next(2) == 0;
            if (write)
            {
                random.NextBytes(buffer);
                buffer.AsSpan(0, count).CopyTo(model.AsSpan(at));
            }
            switch (random.Next(4), write)
            {
                case (0, false): await stream.ReadExactlyAsync(buffer.AsMemory(0, count)); break;
                case (1, false): await stream.ReadExactlyAsync(buffer, 0, count); break;
                case (2, false): stream.ReadExactly(buffer, 0, count); break;
                case (_, false): stream.ReadExactly(buffer.AsSpan(0, count)); break;
                case (0, true): await stream.WriteAsync(buffer.AsMemory(0, count)); break;
                case (1, true): await stream.WriteAsync(buffer, 0, count, default); break;
                case (2, true): stream.Write(buffer, 0, count); break;
                case (_, true): stream.Write(buffer.AsSpan(0, count)); break;
            }
            Assert.That(stream.Position, Is.EqualTo(at + count), $"seed {seed}, step {step}");
            Assert.That(
                buffer.AsSpan(0, count).SequenceEqual(model.AsSpan(at, count)), Is.True,
                $"seed {seed}, step {step}: {count} bytes at {at}");
        }
        Assert.That(bytes, Is.EqualTo(model), $"seed {seed}");
    }

    [Test]
    public async Task It_reads_to_the_end_and_then_nothing()
    {
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Data = "hello"u8.ToArray() });
        await using var stream = new NbdStream(await chain.OpenAsync());
        byte[] buffer = new byte[10];
        stream.Position = 3;
        Assert.That(await stream.ReadAsync(buffer), Is.EqualTo(2));
        Assert.That(await stream.ReadAsync(buffer), Is.Zero);
        Assert.That(stream.Read(buffer, 0, 10), Is.Zero);
        Assert.That(stream.Read(buffer.AsSpan()), Is.Zero);
        Assert.That(stream.ReadByte(), Is.EqualTo(-1));
        stream.Position = long.MaxValue;
        Assert.That(await stream.ReadAsync(buffer), Is.Zero);
        stream.Position = 0;
        using var reader = new StreamReader(stream, Encoding.ASCII, leaveOpen: true);
        Assert.That(await reader.ReadToEndAsync(), Is.EqualTo("hello"));
    }

    [Test]
    public async Task It_copies_to_another_stream()
    {
        await using NbdBackend chain = NbdBackend.Compose(new PatternPlugin { Size = 300_001 });
        await using var stream = new NbdStream(await chain.OpenAsync());
        using var copy = new MemoryStream();
        await stream.CopyToAsync(copy);
        byte[] bytes = copy.ToArray();
        Assert.That(bytes, Has.Length.EqualTo(300_001));
        Assert.That(bytes.AsSpan(299_992, 8).SequenceEqual(new byte[] { 0, 0, 0, 0, 0, 4, 0x93, 0xd8 }), Is.True);
    }

    [Test]
    public async Task A_write_beyond_the_end_fails_like_a_full_disk_and_writes_nothing()
    {
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Data = "hello"u8.ToArray() });
        await using var stream = new NbdStream(await chain.OpenAsync());
        stream.Position = 4;
        foreach (Func<Task> write in new Func<Task>[]
        {
            () => stream.WriteAsync("xx"u8.ToArray()).AsTask(),
            () => stream.WriteAsync("xx"u8.ToArray(), 0, 2, default),
            () => Task.Run(() => stream.Write("xx"u8)),
            () => Task.Run(() => stream.Write("xx"u8.ToArray(), 0, 2)),
        })
        {
            IOException failure = Assert.ThrowsAsync<IOException>(() => write())!;
            Assert.That(failure.HResult, Is.EqualTo(unchecked((int)0x80070070)));
            Assert.That(((NbdException)failure.InnerException!).Error, Is.EqualTo(NbdError.NoSpace));
        }
        Assert.That(stream.Position, Is.EqualTo(4));
        stream.Position = 0;
        Assert.That(new StreamReader(stream).ReadToEnd(), Is.EqualTo("hello"));
        stream.Position = long.MaxValue;
        Assert.That(() => stream.WriteByte(1), Throws.TypeOf<IOException>());
        await stream.WriteAsync(ReadOnlyMemory<byte>.Empty);
    }

    [Test]
    public async Task It_seeks_from_begin_position_and_end()
    {
        await using NbdBackend chain = NbdBackend.Compose(new NullPlugin { Size = 1000 });
        await using var stream = new NbdStream(await chain.OpenAsync());
        Assert.That((stream.Length, stream.Position, stream.CanSeek), Is.EqualTo((1000L, 0L, true)));
        Assert.That(stream.Seek(10, SeekOrigin.Begin), Is.EqualTo(10));
        Assert.That(stream.Seek(-3, SeekOrigin.Current), Is.EqualTo(7));
        Assert.That(stream.Seek(-1, SeekOrigin.End), Is.EqualTo(999));
        Assert.That(stream.Seek(500, SeekOrigin.End), Is.EqualTo(1500));
        Assert.That(() => stream.Seek(-1, SeekOrigin.Begin), Throws.TypeOf<IOException>());
        Assert.That(() => stream.Seek(-1001, SeekOrigin.End), Throws.TypeOf<IOException>());
        Assert.That(() => stream.Seek(long.MaxValue, SeekOrigin.Current), Throws.TypeOf<IOException>());
        Assert.That(() => stream.Seek(long.MinValue, SeekOrigin.Current), Throws.TypeOf<IOException>());
        Assert.That(() => stream.Seek(0, (SeekOrigin)3), Throws.ArgumentException);
        Assert.That(() => stream.Position = -1, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => stream.SetLength(1000), Throws.TypeOf<NotSupportedException>());
        Assert.That(stream.Position, Is.EqualTo(1500));
    }

    [Test]
    public async Task It_reaches_the_last_byte_of_the_largest_disk()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = long.MaxValue });
        await using var stream = new NbdStream(await chain.OpenAsync());
        stream.Seek(-1, SeekOrigin.End);
        stream.WriteByte(0x42);
        Assert.That(stream.Position, Is.EqualTo(long.MaxValue));
        Assert.That(() => stream.WriteByte(1), Throws.TypeOf<IOException>());
        Assert.That(() => stream.Seek(1, SeekOrigin.Current), Throws.TypeOf<IOException>());
        stream.Seek(-1, SeekOrigin.Current);
        Assert.That(stream.ReadByte(), Is.EqualTo(0x42));
    }

    [Test]
    public async Task A_read_only_disk_takes_no_writes()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 10 });
        await using var stream = new NbdStream(await chain.OpenAsync(readOnly: true));
        Assert.That((stream.CanRead, stream.CanWrite), Is.EqualTo((true, false)));
        Assert.That(() => stream.WriteByte(1), Throws.TypeOf<NotSupportedException>());
        Assert.That(async () => await stream.WriteAsync(new byte[1]), Throws.TypeOf<NotSupportedException>());
        stream.Flush();
    }

    [Test]
    public async Task Requests_are_no_larger_than_the_disk_allows()
    {
        int largest = 0;
        var plugin = new DelegatePlugin
        {
            Info = new NbdExportInfo { Size = 10_000, CanWrite = true, BlockSize = new BlockSize(512, 512, 1536) },
            Read = (buffer, _, _) =>
            {
                largest = Math.Max(largest, buffer.Length);
                return default;
            },
            Write = (data, _, _, _) =>
            {
                largest = Math.Max(largest, data.Length);
                return default;
            },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using var stream = new NbdStream(await chain.OpenAsync());
        await stream.WriteAsync(new byte[9_999]);
        stream.Position = 1;
        await stream.ReadExactlyAsync(new byte[9_999]);
        Assert.That(largest, Is.EqualTo(1536));
    }

    [Test]
    public async Task A_flush_reaches_the_disk_if_it_takes_flushes()
    {
        int flushes = 0;
        var plugin = new DelegatePlugin
        {
            Size = 10,
            Read = (_, _, _) => default,
            Flush = _ =>
            {
                flushes++;
                return default;
            },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using (var stream = new NbdStream(await chain.OpenAsync()))
        {
            stream.Flush();
            await stream.FlushAsync();
        }
        Assert.That(flushes, Is.EqualTo(2));

        await using NbdBackend other = NbdBackend.Compose(new PatternPlugin { Size = 10 });
        await using var unflushable = new NbdStream(await other.OpenAsync());
        await unflushable.FlushAsync();
        Assert.That(unflushable.CanRead, Is.True);
    }

    [Test]
    public async Task Failures_of_the_disk_are_IOExceptions_around_them()
    {
        var failure = new NbdException(NbdError.NoSpace, "the disk says no");
        var plugin = new DelegatePlugin
        {
            Size = 10,
            Read = (_, _, _) => throw new NbdException(NbdError.IoError, "bad sector"),
            Write = (_, _, _, _) => ValueTask.FromException(failure),
            Flush = _ => throw failure,
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using var stream = new NbdStream(await chain.OpenAsync());
        IOException read = Assert.Throws<IOException>(() => stream.ReadByte())!;
        Assert.That(read.Message, Is.EqualTo("bad sector"));
        Assert.That(((NbdException)read.InnerException!).Error, Is.EqualTo(NbdError.IoError));
        IOException write = Assert.ThrowsAsync<IOException>(async () => await stream.WriteAsync(new byte[1]))!;
        Assert.That((write.InnerException, write.HResult), Is.EqualTo((failure, unchecked((int)0x80070070))));
        Assert.That(Assert.Throws<IOException>(stream.Flush)!.InnerException, Is.SameAs(failure));
        Assert.That(stream.Position, Is.Zero);
    }

    [Test]
    public async Task The_position_tells_how_far_a_failed_write_came()
    {
        int writes = 0;
        var plugin = new DelegatePlugin
        {
            Info = new NbdExportInfo { Size = 4096, CanWrite = true, BlockSize = new BlockSize(512, 512, 512) },
            Read = (_, _, _) => default,
            Write = (_, _, _, _) => ++writes < 3 ? default : throw new NbdException(NbdError.IoError, "third"),
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using var stream = new NbdStream(await chain.OpenAsync());
        stream.Position = 100;
        Assert.That(async () => await stream.WriteAsync(new byte[2000]), Throws.TypeOf<IOException>());
        Assert.That(stream.Position, Is.EqualTo(1024));
    }

    [Test]
    public async Task Cancellation_is_passed_on_and_comes_back_as_itself()
    {
        var plugin = new DelegatePlugin
        {
            Size = 10,
            Read = async (_, _, cancellationToken) => await Task.Delay(Timeout.Infinite, cancellationToken),
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using var stream = new NbdStream(await chain.OpenAsync());
        using var giveUp = new CancellationTokenSource();
        ValueTask<int> read = stream.ReadAsync(new byte[1], giveUp.Token);
        await giveUp.CancelAsync();
        Assert.That(async () => await read, Throws.InstanceOf<OperationCanceledException>());
    }

    [TestCase(false, false)]
    [TestCase(false, true)]
    [TestCase(true, false)]
    [TestCase(true, true)]
    public async Task Disposal_closes_the_disk_unless_it_is_left_open(bool leaveOpen, bool synchronously)
    {
        int closes = 0;
        var plugin = new DelegatePlugin(10, (_, _) => { })
        {
            Close = () =>
            {
                closes++;
                return default;
            },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        var stream = new NbdStream(disk, leaveOpen);
        for (int i = 0; i < 2; i++)
        {
            if (synchronously)
            {
                stream.Dispose();
            }
            else
            {
                await stream.DisposeAsync();
            }
        }
        Assert.That(closes, Is.EqualTo(leaveOpen ? 0 : 1));
        Assert.That((stream.CanRead, stream.CanWrite, stream.CanSeek), Is.EqualTo((false, false, false)));
        Assert.That(() => stream.Length, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => stream.Position, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => stream.ReadByte(), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => stream.WriteByte(1), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(stream.Flush, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => stream.Seek(0, SeekOrigin.Begin), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public async Task A_closed_context_fails_the_calls_of_its_stream()
    {
        await using NbdBackend chain = NbdBackend.Compose(new NullPlugin());
        NextContext disk = await chain.OpenAsync();
        await disk.DisposeAsync();
        Assert.That(() => new NbdStream(null!), Throws.ArgumentNullException);
        Assert.That(async () => await new NbdStream(disk).FlushAsync(), Throws.InvalidOperationException);
    }

    private static DelegatePlugin Blocks(byte[] bytes, int minimum)
    {
        return new DelegatePlugin(
            bytes.Length,
            (buffer, offset) =>
            {
                Check(offset, buffer.Length);
                bytes.AsSpan((int)offset, buffer.Length).CopyTo(buffer);
            },
            (data, offset) =>
            {
                Check(offset, data.Length);
                data.CopyTo(bytes.AsSpan((int)offset));
            })
        {
            AdjustInfo = info => minimum == 1 ? info : info with { BlockSize = new BlockSize(minimum, 4096) },
        };

        void Check(long offset, int length)
        {
            if (offset % minimum != 0 || (length % minimum != 0 && offset + length != bytes.Length))
            {
                throw new InvalidOperationException($"{length} bytes at {offset} are not whole blocks of {minimum}");
            }
        }
    }
}
