using NbdKit.Buffers;
using NbdKit.Server;
using NbdKit.Tests.Testing;
using NbdKit.Transports;

namespace NbdKit.Tests.Server;

public sealed class InputReaderTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private ScriptedTransport _transport = null!;
    private SlabPool _pool = null!;
    private FakeTimeProvider _time = null!;
    private StallClock _stall = null!;
    private InputReader _input = null!;

    [SetUp]
    public void SetUp()
    {
        _transport = new ScriptedTransport();
        _pool = new SlabPool();
        _time = new FakeTimeProvider();
        _time.Advance(TimeSpan.FromSeconds(1));
        _stall = new StallClock(_time);
        _input = new InputReader(_transport, _pool, _stall);
    }

    [Test]
    public async Task Bytes_come_in_order_however_they_are_cut()
    {
        for (int cut = 1; cut <= 6; cut++)
        {
            SetUp();
            Task<bool> filled = _input.FillAsync(6, None).AsTask();
            _transport.Feed([.. Enumerable.Range(0, cut).Select(i => (byte)i)]);
            Assert.That(filled.IsCompleted, Is.EqualTo(cut == 6));
            _transport.Feed([.. Enumerable.Range(cut, 6 - cut).Select(i => (byte)i)]);
            Assert.That(await filled.Soon());
            Assert.That(_input.Buffered.ToArray(), Is.EqualTo(new byte[] { 0, 1, 2, 3, 4, 5 }), $"cut at {cut}");
            _input.Advance(2);
            Assert.That((_input.Count, _input.Buffered.Span[0]), Is.EqualTo((4, (byte)2)));
        }
    }

    [Test]
    public async Task The_part_of_a_message_that_came_holds_no_slab_while_the_rest_does_not_come()
    {
        _transport.Feed(1, 2, 3);
        Assert.That(await _input.FillAsync(3, None));
        Slab used = _input.Slab;
        Task<bool> filling = _input.FillAsync(5, None).AsTask();
        Slab free = _pool.Rent();
        Assert.That(free, Is.SameAs(used));
        free.Memory.Span.Clear();
        _transport.Feed(4, 5);
        Assert.That(await filling.Soon());
        Assert.That(_input.Buffered.ToArray(), Is.EqualTo(new byte[] { 1, 2, 3, 4, 5 }));
    }

    [Test, Property("Threat", "P14")]
    public async Task Where_many_wait_inside_a_message_none_of_them_holds_a_slab([Values(1, 50_000)] int came)
    {
        const int Clients = 1000;
        byte[] part = [.. Enumerable.Range(0, came).Select(i => (byte)i)];
        var waiting = new List<(ScriptedTransport Transport, InputReader Input, Task<bool> Filling)>();
        int rested = 0;
        for (int i = 0; i < Clients; i++)
        {
            var transport = new ScriptedTransport();
            var input = new InputReader(transport, _pool, _stall) { IsFrugal = false, WhenIdle = () => rested++ };
            transport.Feed(part);
            waiting.Add((transport, input, input.FillAsync(came + 1, None).AsTask()));
        }
        Assert.That(_pool.InUse, Is.LessThan(70));
        Assert.That(rested, Is.GreaterThan(900), "nor does its writer");
        foreach ((ScriptedTransport transport, InputReader input, Task<bool> filling) in waiting)
        {
            transport.Feed(1);
            Assert.That(await filling.Soon());
            Assert.That(input.Buffered.Span[..came].SequenceEqual(part));
            input.Close();
        }
        Assert.That(_pool.InUse, Is.Zero);
    }

    [Test]
    public async Task A_payload_that_is_read_elsewhere_holds_no_slab_meanwhile()
    {
        _transport.Feed(1, 2, 3);
        Assert.That(await _input.FillAsync(1, None));
        Slab used = _input.Slab;
        byte[] payload = new byte[4];
        Task reading = _input.ReadExactlyAsync(payload, None).AsTask();
        Assert.That(_pool.Rent(), Is.SameAs(used));
        _transport.Feed(4);
        await reading.Soon();
        Assert.That(payload, Is.EqualTo(new byte[] { 1, 2, 3, 4 }));
    }

    [Test]
    public async Task The_end_between_two_messages_is_an_end_and_inside_one_a_loss()
    {
        _transport.Feed(1, 2, 3);
        Assert.That(await _input.FillAsync(3, None));
        _input.Advance(3);
        _transport.Finish();
        Assert.That(await _input.FillAsync(1, None), Is.False);
        IsLost(() => _input.FillInsideAsync(1, None).AsTask());
        IsLost(() => _input.ReadExactlyAsync(new byte[1], None).AsTask());
        IsLost(() => _input.SkipAsync(1, None).AsTask());

        SetUp();
        _transport.Feed(1, 2, 3).Finish();
        IsLost(() => _input.FillAsync(4, None).AsTask());
        SetUp();
        _transport.Feed(1, 2, 3).Finish();
        IsLost(() => _input.SkipAsync(4, None).AsTask());
    }

    [Test]
    public void A_transport_that_fails_is_a_loss_with_its_cause()
    {
        var cause = new IOException("reset");
        _transport.Break(cause);
        foreach (Func<Task> receive in new Func<Task>[]
        {
            () => _input.FillAsync(1, None).AsTask(), () => _input.ReadExactlyAsync(new byte[1], None).AsTask(),
        })
        {
            ConnectionEndedException thrown = Assert.ThrowsAsync<ConnectionEndedException>(async () => await receive())!;
            Assert.That((thrown.Reason, thrown.InnerException), Is.EqualTo((NbdDisconnectReason.ConnectionLost, cause)));
        }
    }

    [Test]
    public async Task A_buffer_of_the_caller_is_filled_from_what_is_here_and_then_from_the_client()
    {
        _transport.Feed(1, 2, 3);
        await _input.FillAsync(1, None);
        byte[] buffer = new byte[5];
        Task reading = _input.ReadExactlyAsync(buffer, None).AsTask();
        Assert.That(reading.IsCompleted, Is.False);
        _transport.Feed(4, 5, 6);
        await reading.Soon();
        Assert.That(buffer, Is.EqualTo(new byte[] { 1, 2, 3, 4, 5 }));
        await _input.FillAsync(1, None);
        Assert.That(_input.Buffered.ToArray(), Is.EqualTo(new byte[] { 6 }), "not a byte more was taken");
    }

    [Test]
    public async Task What_is_thrown_away_is_gone_and_nothing_else()
    {
        _transport.Feed(new byte[700_000]).Feed(7);
        await _input.SkipAsync(700_000, None);
        await _input.FillAsync(1, None);
        Assert.That(_input.Buffered.Span[0], Is.EqualTo(7));
    }

    [Test]
    public async Task Bytes_that_are_held_stay_as_they_are()
    {
        _transport.Feed([.. Enumerable.Repeat((byte)1, 1000)]);
        await _input.FillAsync(1000, None);
        Slab slab = _input.Slab;
        ReadOnlyMemory<byte> held = _input.Buffered;
        slab.Hold();
        _input.Advance(1000);
        for (int i = 0; i < 20; i++)
        {
            _transport.Feed([.. Enumerable.Repeat((byte)2, 50_000)]);
            await _input.FillAsync(50_000, None);
            Assert.That(_input.Buffered.Span.ContainsAnyExcept((byte)2), Is.False);
            _input.Advance(50_000);
        }
        Assert.That(held.Span.ContainsAnyExcept((byte)1), Is.False);
        Assert.That(_input.Slab, Is.Not.SameAs(slab), "a held slab is not begun anew");
        slab.Release();
        _input.Close();
        Assert.That(Enumerable.Range(0, 4).Select(_ => _pool.Rent()).ToArray(), Is.Unique.And.All.Matches<Slab>(s => s.IsSole));
    }

    [Test]
    public async Task Held_bytes_at_the_end_of_a_slab_move_with_the_rest_of_their_message()
    {
        // A message of 10 bytes whose first 4 lie at the very end of a slab.
        byte[] filling = new byte[Slab.Size - 4];
        _transport.Feed(filling).Feed(1, 2, 3, 4);
        await _input.FillAsync(filling.Length, None);
        while (_input.Count < Slab.Size)
        {
            await _input.FillAsync(Slab.Size, None);
        }
        Slab slab = _input.Slab;
        slab.Hold();
        _input.Advance(filling.Length);
        _transport.Feed(5, 6, 7, 8, 9, 10);
        await _input.FillAsync(10, None);
        Assert.That(_input.Buffered.ToArray(), Is.EqualTo(new byte[] { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }));
        slab.Release();
        Assert.That(_pool.Rent(), Is.SameAs(slab));
    }

    [Test]
    public async Task The_clock_of_a_message_runs_from_its_first_byte_and_stops_with_its_last()
    {
        TimeSpan limit = TimeSpan.FromSeconds(10);
        Task<bool> filled = _input.FillAsync(4, None).AsTask();
        _time.Advance(TimeSpan.FromDays(1));
        Assert.That(_stall.IsStalled(limit), Is.False, "between messages it stands still");
        _transport.Feed(1);
        _time.Advance(TimeSpan.FromSeconds(9));
        Assert.That(_stall.IsStalled(limit), Is.False);
        _transport.Feed(2);
        _time.Advance(TimeSpan.FromSeconds(9));
        Assert.That(_stall.IsStalled(limit), Is.False, "every byte starts it anew");
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.That(_stall.IsStalled(limit));
        _transport.Feed(3, 4);
        await filled.Soon();
        _time.Advance(TimeSpan.FromDays(1));
        Assert.That(_stall.IsStalled(limit), Is.False);
    }

    [Test]
    public async Task The_clock_runs_for_payloads_that_have_not_begun()
    {
        TimeSpan limit = TimeSpan.FromSeconds(10);
        foreach (Func<Task> receive in new Func<Task>[]
        {
            () => _input.FillInsideAsync(4, None).AsTask(),
            () => _input.ReadExactlyAsync(new byte[4], None).AsTask(),
            () => _input.SkipAsync(4, None).AsTask(),
        })
        {
            Task receiving = receive();
            _time.Advance(limit);
            Assert.That(_stall.IsStalled(limit));
            _transport.Feed(1, 2, 3, 4);
            await receiving.Soon();
            Assert.That(_stall.IsStalled(limit), Is.False);
            _input.Advance(_input.Count);
        }
    }

    [Test]
    public async Task A_long_payload_that_comes_slowly_starts_the_clock_anew_with_each_part()
    {
        TimeSpan limit = TimeSpan.FromSeconds(10);
        var loan = new Loan();
        loan.Add(GC.AllocateArray<byte>(4, pinned: true), 0, 4);
        foreach (Func<Task> receive in new Func<Task>[]
        {
            () => _input.FillInsideAsync(4, None).AsTask(),
            () => _input.ReadExactlyAsync(new byte[4], None).AsTask(),
            () => _input.ReadExactlyAsync(loan, None).AsTask(),
            () => _input.SkipAsync(4, None).AsTask(),
        })
        {
            Task receiving = receive();
            for (byte part = 0; part < 4; part++)
            {
                _time.Advance(TimeSpan.FromSeconds(9));
                Assert.That(_stall.IsStalled(limit), Is.False, $"after {part} parts");
                _transport.Feed(part);
            }
            await receiving.Soon();
            _input.Advance(_input.Count);
        }
    }

    [Test]
    public async Task The_transport_s_own_pauses_do_not_stop_the_clock()
    {
        TimeSpan tenPauses = TimeSpan.FromSeconds(10);
        var pausing = new PausingTransport(_time, _stall);
        var input = new InputReader(pausing, _pool, _stall);
        Assert.That(await input.FillAsync(3, None));
        Assert.That(pausing.TakeLongestStall(), Is.EqualTo(tenPauses));
        byte[] rest = new byte[4];
        input.Advance(input.Count);
        await input.ReadExactlyAsync(rest, None);
        Assert.That(pausing.TakeLongestStall(), Is.EqualTo(tenPauses));
        var loan = new Loan();
        loan.Add(GC.AllocateArray<byte>(4, pinned: true), 0, 4);
        await input.ReadExactlyAsync(loan, None);
        Assert.That(pausing.TakeLongestStall(), Is.EqualTo(tenPauses));
        await input.SkipAsync(4, None);
        Assert.That(pausing.TakeLongestStall(), Is.EqualTo(tenPauses));
    }

    private static void IsLost(Func<Task> receive)
        => Assert.That(
            async () => await receive().Soon(),
            Throws.InstanceOf<ConnectionEndedException>().With.Property("Reason").EqualTo(NbdDisconnectReason.ConnectionLost));

    /// <summary>One byte at a time, with ten pauses of a second before each.</summary>
    private sealed class PausingTransport(FakeTimeProvider time, StallClock stall) : Transport
    {
        private int _calls;
        private TimeSpan _longest;

        public TimeSpan TakeLongestStall()
        {
            TimeSpan longest = _longest;
            _longest = TimeSpan.Zero;
            return longest;
        }

        public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        {
            if (_calls++ % 11 == 0)
            {
                buffer.Span[0] = 1;
                return new(1);
            }
            time.Advance(TimeSpan.FromSeconds(1));
            TimeSpan longer = _longest + TimeSpan.FromSeconds(1);
            _longest = stall.IsStalled(longer) ? longer : _longest;
            return new(-1);
        }

        public override ValueTask<int> ReceiveAsync(Loan loan, int position, CancellationToken cancellationToken)
            => ReceiveAsync(new byte[1], cancellationToken);

        public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken) => default;

        public override ValueTask CloseAsync() => default;

        public override void Abort()
        {
        }
    }
}
