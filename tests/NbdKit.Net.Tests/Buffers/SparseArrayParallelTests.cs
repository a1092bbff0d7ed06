using System.Buffers.Binary;
using NbdKit.Buffers;

namespace NbdKit.Tests.Buffers;

public sealed class SparseArrayParallelTests
{
    private const int Page = SparseArray.PageSize;
    private const int Workers = 4;

    [Test]
    public void Writers_that_race_to_make_the_same_pages_lose_nothing()
    {
        // Each round begins with pages, and directories of every height, that do not exist; each worker owns every
        // fourth 512 bytes, so all of them have to make every page.
        const int Rounds = 200;
        const int Sectors = 2 * Page / 512;
        var array = new SparseArray(long.MaxValue);
        using var barrier = new Barrier(Workers);
        RunWorkers(worker =>
        {
            Span<byte> sector = stackalloc byte[512];
            for (int round = 0; round < Rounds; round++)
            {
                sector.Fill((byte)(1 + worker + (round % 50)));
                barrier.SignalAndWait();
                for (int i = worker; i < Sectors; i += Workers)
                {
                    array.Write(RoundStart(round) + (i * 512), sector);
                }
            }
        });
        byte[] found = new byte[Sectors * 512];
        for (int round = 0; round < Rounds; round++)
        {
            array.Read(RoundStart(round), found);
            for (int i = 0; i < Sectors; i++)
            {
                Assert.That(
                    found.AsSpan(i * 512, 512).ContainsAnyExcept((byte)(1 + (i % Workers) + (round % 50))),
                    Is.False,
                    $"round {round}, sector {i}");
            }
        }

        static long RoundStart(int round) => (round * (long.MaxValue / Rounds / Page) * Page) + (Page / 2);
    }

    [Test]
    public void Workers_on_disjoint_parts_of_the_same_pages_never_disturb_each_other()
    {
        // Stripes of a length that shares pages between all workers. What a worker wrote or zeroed last in its own
        // stripes must be what it reads, whatever the others do next to it.
        const int Stripe = 3_000;
        const int Stripes = 80;
        var array = new SparseArray(Stripe * Stripes);
        RunWorkers(worker =>
        {
            var random = new Random(worker);
            var model = new byte[Stripes][];
            var found = new byte[Stripe];
            for (int step = 0; step < 20_000; step++)
            {
                int stripe = (random.Next(Stripes / Workers) * Workers) + worker;
                byte[] mine = model[stripe] ??= new byte[Stripe];
                int at = random.Next(Stripe);
                int count = 1 + random.Next(Stripe - at);
                long offset = ((long)stripe * Stripe) + at;
                switch (random.Next(4))
                {
                    case 0:
                        random.NextBytes(mine.AsSpan(at, count));
                        array.Write(offset, mine.AsSpan(at, count));
                        break;
                    case 1:
                        mine.AsSpan(at, count).Clear();
                        array.Zero(offset, count, keepPages: random.Next(2) == 0, default);
                        break;
                    default:
                        array.Read(offset, found.AsSpan(0, count));
                        if (!found.AsSpan(0, count).SequenceEqual(mine.AsSpan(at, count)))
                        {
                            Assert.Fail($"seed {worker}, step {step}: stripe {stripe} lost {count} bytes at {at}");
                        }
                        break;
                }
            }
        });
    }

    [Test]
    public void A_zero_that_gives_up_pages_leaves_those_of_other_workers_alone()
    {
        // Whole pages, a worker's own, given up and written again, so that pages and directories come and go under the
        // others.
        const int Pages = 64;
        const long Spread = 4096L * Page / 8;
        var array = new SparseArray(Spread * Pages);
        RunWorkers(worker =>
        {
            var random = new Random(worker);
            var model = new byte[Pages];
            Span<byte> page = new byte[Page];
            for (int step = 0; step < 3_000; step++)
            {
                int own = (random.Next(Pages / Workers) * Workers) + worker;
                array.Read(own * Spread, page[..4096]);
                if (page[..4096].ContainsAnyExcept(model[own]))
                {
                    Assert.Fail($"seed {worker}, step {step}: page {own} is not what was written last");
                }
                model[own] = (byte)(random.Next(2) == 0 ? 0 : random.Next(256));
                if (model[own] == 0)
                {
                    array.Zero(own * Spread, Page, keepPages: false, default);
                }
                else
                {
                    page[..4096].Fill(model[own]);
                    array.Write(own * Spread, page[..4096]);
                }
            }
        });
    }

    [Test]
    public void Readers_that_race_with_zeroes_and_writes_see_zeroes_or_the_right_page_only()
    {
        // Every eight bytes hold the offset they belong to, or zero. Pages that go and come back must never show
        // another's.
        const int Size = 16 * Page;
        var array = new SparseArray(Size);
        RunWorkers(worker =>
        {
            var random = new Random(worker);
            var buffer = new byte[3 * Page];
            for (int step = 0; step < 500; step++)
            {
                int count = 8 * (1 + random.Next(buffer.Length / 8));
                int offset = 8 * random.Next(((Size - count) / 8) + 1);
                switch (worker)
                {
                    case 0:
                        array.Zero(offset, count, keepPages: step % 8 == 0, default);
                        break;
                    case 1:
                        for (int i = 0; i < count; i += 8)
                        {
                            BinaryPrimitives.WriteInt64LittleEndian(buffer.AsSpan(i), offset + i);
                        }
                        array.Write(offset, buffer.AsSpan(0, count));
                        break;
                    default:
                        array.Read(offset, buffer.AsSpan(0, count));
                        for (int i = 0; i < count; i += 8)
                        {
                            long word = BinaryPrimitives.ReadInt64LittleEndian(buffer.AsSpan(i));
                            // Copies are not atomic, but no byte may come from anywhere but here.
                            if (word != 0 && (word & ~(long)(offset + i)) != 0)
                            {
                                Assert.Fail($"seed {worker}, step {step}: {offset + i} reads as {word}");
                            }
                        }
                        break;
                }
            }
        });
    }

    [Test]
    public void A_write_after_a_zero_that_gave_up_its_directory_is_kept()
    {
        // Zeroes of the whole of a directory that nobody else uses, next to writers in the neighbouring ones.
        const long Span = 4096L * Page;
        var array = new SparseArray(Span * (Workers + 1));
        RunWorkers(worker =>
        {
            Span<byte> sector = stackalloc byte[512];
            for (int step = 1; step < 1_000; step++)
            {
                sector.Fill((byte)(step % 255));
                array.Write((worker * Span) + (step % 7 * Page), sector);
                array.Read((worker * Span) + (step % 7 * Page), sector);
                if (sector.ContainsAnyExcept((byte)(step % 255)))
                {
                    Assert.Fail($"worker {worker} lost its write in step {step}");
                }
                array.Zero(worker * Span, Span, keepPages: false, default);
                array.Read((worker * Span) + (step % 7 * Page), sector);
                if (sector.ContainsAnyExcept((byte)0))
                {
                    Assert.Fail($"worker {worker} was not zeroed in step {step}");
                }
            }
        });
        var extents = new ExtentList(0, array.Size);
        array.GetExtents(0, array.Size, onlyFirst: false, extents);
        Assert.That(extents, Has.Count.EqualTo(1), "all was given up");
    }

    private static void RunWorkers(Action<int> work)
        => Task.WaitAll([.. Enumerable.Range(0, Workers).Select(
            worker => Task.Factory.StartNew(() => work(worker), TaskCreationOptions.LongRunning))]);
}
