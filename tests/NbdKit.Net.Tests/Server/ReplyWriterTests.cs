using System.Buffers;
using Microsoft.Extensions.ObjectPool;
using NbdKit.Buffers;
using NbdKit.Server;
using NbdKit.Tests.Testing;
using NbdKit.Transports;

namespace NbdKit.Tests.Server;

public sealed class ReplyWriterTests
{
    private ScriptedTransport _transport = null!;
    private ScarceSlabs _pool = null!;
    private Slab _slab = null!;
    private FlowBudget _budget = null!;
    private ServerBudget _server = null!;
    private ReplyWriter _writer = null!;

    [SetUp]
    public void SetUp()
    {
        _transport = new ScriptedTransport();
        _pool = new ScarceSlabs();
        _slab = _pool.Rent();
        _slab.Release();
        _server = new ServerBudget(1 << 20);
        _budget = new FlowBudget(64, 1 << 20, _server);
        _writer = new ReplyWriter(
            _transport, _pool, new PayloadArrays(0), new DefaultObjectPool<Loan>(new DefaultPooledObjectPolicy<Loan>()),
            _budget, new StallClock(TimeProvider.System));
    }

    [Test]
    public async Task Replies_go_out_in_the_order_in_which_they_were_queued()
    {
        Task sending = _writer.RunAsync(CancellationToken.None);
        Stage(1);
        Stage(2);
        _writer.Queue(Rented(3));
        Stage(4);
        ReplySegment later = Detach(9);
        Stage(5);
        Assert.That(_transport.TakeOutput(), Is.EqualTo(new byte[] { 1, 2, 3 }), "the rest waits for a flush");
        _writer.Flush();
        Assert.That(_transport.TakeOutput(), Is.EqualTo(new byte[] { 4, 5 }));
        _writer.Post(later);
        Assert.That(_transport.TakeOutput(), Is.EqualTo(new byte[] { 9 }));
        _writer.Close();
        await sending.Soon();
        AssertAllGivenBack();
    }

    [Test]
    [Property("Threat", "P37")]
    public async Task What_waits_counts_with_all_the_memory_that_it_holds()
    {
        byte[] rented = new PayloadArrays(0).Rent((256 << 10) + 16);
        Assert.That(rented, Has.Length.EqualTo(512 << 10), "the pool takes the next power of two");
        _writer.Queue(ReplySegment.Rented(rented, (256 << 10) + 16));
        Assert.That(_server.HasRoom(0, 256 << 10));
        Assert.That(_server.HasRoom(0, 600 << 10), Is.False);
        _writer.Close();
        await _writer.RunAsync(CancellationToken.None).Soon();
        AssertAllGivenBack();
    }

    [Test]
    [Property("Threat", "P37")]
    public async Task Small_replies_that_wait_count_with_their_places_in_the_queue()
    {
        const int replies = 1000;
        for (int i = 0; i < replies; i++)
        {
            _writer.Post(Shared(1));
        }
        Assert.That(_server.HasRoom(0, 512 << 10));
        Assert.That(_server.HasRoom(0, (1 << 20) - (64 << 10) - (80 * replies)), Is.False, "a place has 40 bytes, and every other is free");
        _writer.Close();
        await _writer.RunAsync(CancellationToken.None).Soon();
        Assert.That(_transport.TakeOutput(), Has.Length.EqualTo(replies));
        AssertAllGivenBack();
    }

    [Test]
    public async Task Much_is_sent_without_a_flush()
    {
        Task sending = _writer.RunAsync(CancellationToken.None);
        Memory<byte> large = _writer.Reserve(128 << 10);
        large.Span.Clear();
        _writer.Commit(128 << 10);
        Assert.That(_transport.TakeOutput(), Has.Length.EqualTo(128 << 10));
        _writer.Close();
        await sending.Soon();
    }

    [Test]
    public async Task What_is_queued_before_the_close_is_sent()
    {
        var gate = new Gate();
        _transport.OnSend = token => gate.PassAsync(token);
        Task sending = _writer.RunAsync(CancellationToken.None);
        Stage(1);
        _writer.Flush();
        await gate.ArrivedAsync();
        Stage(2);
        _writer.Post(Shared(3));
        _writer.Close();
        Assert.That(sending.IsCompleted, Is.False);
        gate.Open();
        await sending.Soon();
        Assert.That(_transport.TakeOutput(), Is.EquivalentTo(new byte[] { 1, 2, 3 }));
        AssertAllGivenBack();
    }

    [Test]
    public async Task What_was_sent_or_dropped_gives_its_bytes_back()
    {
        var gate = new Gate();
        _transport.OnSend = token => gate.PassAsync(token);
        using var abort = new CancellationTokenSource();
        Task sending = _writer.RunAsync(abort.Token);
        _writer.Post(Shared(1));
        await gate.ArrivedAsync();
        _writer.Post(Shared(2));
        _writer.Queue(Rented(3));
        Stage(4);
        _writer.Flush();
        Assert.That(_server.HasRoom(0, 1 << 20), Is.False, "four bytes are held");
        await abort.CancelAsync();
        Assert.That(async () => await sending.Soon(), Throws.InstanceOf<OperationCanceledException>());
        // Whoever comes too late is heard by nobody, and holds nothing.
        _writer.Post(Shared(5));
        _writer.Queue(Rented(6));
        Stage(7);
        _writer.Close();
        AssertAllGivenBack();
    }

    [Test]
    public async Task A_loan_that_comes_after_the_end_is_given_back()
    {
        using var abort = new CancellationTokenSource();
        _transport.OnSend = token => new ValueTask(Task.Delay(Timeout.Infinite, token));
        Task sending = _writer.RunAsync(abort.Token);
        _writer.Post(Shared(1));
        await abort.CancelAsync();
        Assert.That(async () => await sending.Soon(), Throws.InstanceOf<OperationCanceledException>());
        var loan = new Loan();
        loan.Add(GC.AllocateArray<byte>(16, pinned: true), 0, 16);

        _writer.Post(Shared(2).With(loan));

        Assert.That(loan.Length, Is.Zero, "nothing holds the memory that was lent");
        _writer.Close();
    }

    [Test]
    public async Task A_stage_at_rest_holds_no_memory()
    {
        Task sending = _writer.RunAsync(CancellationToken.None);
        Stage(1);
        _writer.Flush();
        Assert.That(_pool.Rent(), Is.Not.SameAs(_slab), "the stage holds it");
        _writer.Rest();
        Slab back = _pool.Rent();
        Assert.That((ReferenceEquals(back, _slab), back.IsSole), Is.EqualTo((true, true)));
        back.Release();
        _writer.Close();
        await sending.Soon();
    }

    [Test]
    public async Task A_reply_that_is_complete_later_keeps_its_memory_until_it_is_sent()
    {
        Task sending = _writer.RunAsync(CancellationToken.None);
        ReplySegment later = Detach(1);
        _writer.Rest();
        Assert.That(_pool.Rent(), Is.Not.SameAs(_slab));
        _writer.Post(later);
        Assert.That(_transport.TakeOutput(), Is.EqualTo(new byte[] { 1 }));
        _writer.Close();
        await sending.Soon();
        AssertAllGivenBack();
    }

    [Test]
    public async Task Many_threads_post_and_every_byte_is_sent_once()
    {
        Task sending = _writer.RunAsync(CancellationToken.None);
        _transport.OnSend = async _ => await Task.Yield();
        await Task.WhenAll(Enumerable.Range(0, 4).Select(i => Task.Run(() =>
        {
            for (int j = 0; j < 500; j++)
            {
                _writer.Post(Shared((byte)i));
            }
        }))).Soon();
        _writer.Close();
        await sending.Soon();
        byte[] sent = _transport.TakeOutput();
        Assert.That(Enumerable.Range(0, 4).Select(i => sent.Count(b => b == i)), Is.All.EqualTo(500));
        AssertAllGivenBack();
    }

    [Test]
    [Property("Threat", "N17")]
    public async Task A_stage_that_cannot_be_replaced_leaves_what_is_being_sent_alone()
    {
        var gate = new Gate();
        _transport.OnSend = token => gate.PassAsync(token);
        Task sending = _writer.RunAsync(CancellationToken.None);
        _writer.Reserve(Slab.Size).Span.Fill(1);
        _writer.Commit(Slab.Size);
        await gate.ArrivedAsync();
        _pool.IsEmpty = true;
        Assert.That(() => _writer.Reserve(1), Throws.InstanceOf<OutOfMemoryException>());
        _pool.IsEmpty = false;

        Stage(2);
        _writer.Flush();
        gate.Open();
        _writer.Close();
        await sending.Soon();

        byte[] sent = _transport.TakeOutput();
        Assert.That(sent, Has.Length.EqualTo(Slab.Size + 1));
        Assert.That((sent.AsSpan(0, Slab.Size).IndexOfAnyExcept((byte)1), sent[^1]), Is.EqualTo((-1, 2)));
        Assert.That(_pool.InUse, Is.Zero);
        AssertAllGivenBack();
    }

    [Test]
    [Property("Threat", "N17")]
    public async Task What_is_shared_and_cannot_be_replaced_is_given_back_once()
    {
        Task sending = _writer.RunAsync(CancellationToken.None);
        ReplySegment whole = _writer.ReserveShared(Slab.Size, out _);
        _pool.IsEmpty = true;
        Assert.That(() => _writer.ReserveShared(1, out _), Throws.InstanceOf<OutOfMemoryException>());
        _pool.IsEmpty = false;
        _writer.Post(whole);
        _writer.Post(Shared(2));
        Assert.That(_transport.TakeOutput()[^1], Is.EqualTo(2));
        _writer.Close();
        await sending.Soon();
        Assert.That(_pool.InUse, Is.Zero);
        AssertAllGivenBack();
    }

    [Test]
    [Property("Threat", "N17")]
    public void What_cannot_be_put_together_gives_its_bytes_back()
    {
        _writer.Post(Shared(1));
        _writer.Post(Shared(2));
        _pool.IsEmpty = true;
        Assert.That(async () => await _writer.RunAsync(CancellationToken.None).Soon(), Throws.InstanceOf<OutOfMemoryException>());
        _pool.IsEmpty = false;
        _writer.Close();
        Assert.That(_pool.InUse, Is.Zero);
        AssertAllGivenBack();
    }

    private void Stage(byte value)
    {
        _writer.Reserve(1).Span[0] = value;
        _writer.Commit(1);
    }

    private ReplySegment Detach(byte value)
    {
        _writer.Reserve(1).Span[0] = value;
        return _writer.Detach(1);
    }

    private ReplySegment Shared(byte value)
    {
        ReplySegment segment = _writer.ReserveShared(1, out Memory<byte> memory);
        memory.Span[0] = value;
        return segment;
    }

    private static ReplySegment Rented(byte value)
    {
        byte[] rented = ArrayPool<byte>.Shared.Rent(16);
        rented[0] = value;
        return ReplySegment.Rented(rented, 1);
    }

    private void AssertAllGivenBack()
    {
        Assert.That(_server.HasRoom(0, 1 << 20), "every byte was given back");
        // The pool holds the first slab again, and nobody else does: it was released as often as it was held.
        var slabs = new List<Slab>();
        do
        {
            slabs.Add(_pool.Rent());
        }
        while (!ReferenceEquals(slabs[^1], _slab) && slabs.Count < 64);
        Assert.That(slabs, Does.Contain(_slab));
        Assert.That(slabs.Select(slab => slab.IsSole), Is.All.True);
        Assert.That(slabs, Is.Unique);
    }
}
