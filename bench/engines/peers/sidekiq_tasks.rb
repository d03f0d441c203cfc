# Sidekiq (no results, and a killed worker loses what it had fetched); the client's part answers as answer.py does.
require "json"
require "sidekiq"

Redis.silence_deprecations = true if Redis.respond_to?(:silence_deprecations=)
Sidekiq.logger.level = Logger::WARN
Sidekiq.configure_server { |config| config.redis = { url: ENV["BENCH_URL"] } }
Sidekiq.configure_client { |config| config.redis = { url: ENV["BENCH_URL"] } }

class Noop
  include Sidekiq::Worker
  MARKS = File.open(ENV["BENCH_MARKS"], "a").tap { |file| file.sync = true }

  def perform(number)
    MARKS.syswrite("x")
  end
end

if $PROGRAM_NAME == __FILE__
  def seconds
    started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    yield
    Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
  end

  $stdin.each_line do |line|
    request = JSON.parse(line)
    count = request["count"]
    taken = case request["do"]
            when "one_by_one"
              Noop.perform_async(0)
              seconds { count.times { |number| Noop.perform_async(number) } }
            when "fill"
              seconds do
                (0...count).each_slice(1000) do |numbers|
                  Sidekiq::Client.push_bulk("class" => Noop, "args" => numbers.map { |number| [number] })
                end
              end
            end
    puts JSON.generate(taken)
    $stdout.flush
  end
end
